"""The page for people at ``/`` of the standalone service.

::

    PageHandler ─▶ addresses      how this visitor reaches the service
         │
         └───────▶ document       the parts of the page, filled in        files/*.html
    FileHandler                   styles and scripts                      files/*.css, *.js
    FiguresHandler ─▶ operator    whether this visitor is the operator

What is shown is data: a :class:`~autopush.web.page.document.Document` names its parts and the files
it is made of. A service that has something else to show is given another one.
"""
