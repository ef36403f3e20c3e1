"""At what price? Supply and demand make a multiplier per cell; distance, time and multiplier make quotes, fares and receipts."""
