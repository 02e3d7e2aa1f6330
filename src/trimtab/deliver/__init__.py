"""Packages, CI workflows and manifests: exports of the same declarations."""
