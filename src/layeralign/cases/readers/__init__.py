"""Cases from the files of public benchmarks, in their own formats."""
