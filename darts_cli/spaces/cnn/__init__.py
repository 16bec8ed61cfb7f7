"""The convolutional space: cells of images."""
