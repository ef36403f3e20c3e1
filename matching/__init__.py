"""Who serves whom? Candidates -> ranking -> phased offers -> the life of a ride."""
