"""What single lessons show: figures of their own, and the pure pictures behind their explorers; no widgets here."""
