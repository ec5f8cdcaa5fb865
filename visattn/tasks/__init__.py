"""What the commands do, as functions: each module belongs to the command of its name, which parses its options."""
