"""Cases (prompts with pictures), their files, and the public benchmarks they come from."""
