"""Maps in pixels: a tile for each look (`tiles`), a map made of them (`mosaic`), drawn in a terminal (`screen`)."""
