"""What everything else stands on: settings, paths, files, weights, the hub, downloads."""
