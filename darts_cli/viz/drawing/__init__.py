"""How a cell is laid out and drawn: places, lines, boxes, titles and a legend."""
