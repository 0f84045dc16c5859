"""What every other package builds on: settings, paths, files, weights, the hub, downloads."""
