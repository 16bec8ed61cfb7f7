"""The recurrent space: a cell that reads a text word by word."""
