"""The platform of a run: devices, ranks, memory, precision, signals, random numbers, clocks."""
