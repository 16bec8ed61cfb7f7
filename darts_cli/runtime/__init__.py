"""What the method runs on: devices, ranks, memory, precision, signals, random numbers, clocks."""
