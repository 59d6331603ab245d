"""Commands that report a run and decide what may be shipped."""
