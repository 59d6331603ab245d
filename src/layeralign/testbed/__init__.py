"""The small vision-language model that ships with layeralign, and its world."""
