"""The data plane: request -> candidates -> attempt -> verdict -> stream -> meter."""
