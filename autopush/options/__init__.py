"""What an operator may say, and how it is read (spec/configuration).

An option is a row of a table (:mod:`~autopush.options.tables`): its names, its kind and limits,
its default, its text. :mod:`~autopush.options.parser` makes the parsers of the commands of these
rows, which read, the first that says something wins, the command line, variables of the
environment, files. :mod:`~autopush.options.standalone` has what the standalone service leaves
out, adds and does differently; :mod:`~autopush.options.commands` where each command looks for its
files.

``--help``, the reference in the manual and the tests of the samples in ``configs/`` are made from
the same rows. What was read becomes an :class:`~autopush.config.AutopushConfig`.
"""
