"""Users' YAML as typed, frozen objects.

Five words: a *source* is a text with a path; a *document* is one YAML document of it, still plain data; a
*kind* is an API group's object type; a *spec* is the frozen pydantic model of a document's ``spec``; a
*problem* is a broken rule at a field path, which becomes a finding with file and line.

``retia.config.parse`` is the way in. Everything is decided at this edge: durations are seconds, ports are in
range, hosts are lower case, regular expressions are RE2, so that no later stage checks again. Nothing here
reads files: the text is an argument.
"""
