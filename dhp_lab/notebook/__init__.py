"""What notebooks show: charts, photos, tables, widgets, exercises."""
