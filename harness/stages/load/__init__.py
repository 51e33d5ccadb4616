"""Load: the generator, the processes it is made of, and who looks on."""
