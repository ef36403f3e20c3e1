"""How services reach the stores: bounded in time, errors in our words."""
