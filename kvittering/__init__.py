"""kvittering."""
