"""The back end in one file, which all processes of a machine may share (spec/storage 17)."""
