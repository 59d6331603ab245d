"""What every part needs and no part is about: text, files, retries, the machine, progress."""
