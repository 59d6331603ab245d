"""The testbed: the small vision-language model that ships with layeralign, and its world."""
