"""What the engine costs on this machine: `reverie bench`."""
