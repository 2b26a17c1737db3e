"""Up: what a home holds is started, waited for, and begun anew."""
