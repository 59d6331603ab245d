"""Cases from the user's own copies of public benchmarks, in the files' own formats."""
