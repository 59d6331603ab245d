"""A vision-language model seen as encode → exit at l → project → language model."""
