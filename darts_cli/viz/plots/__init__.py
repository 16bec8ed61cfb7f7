"""The plots of a history: each has a file with the function that draws its figure."""
