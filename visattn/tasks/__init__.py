"""The commands as functions; each module belongs to the command of the same name, which parses its options."""
