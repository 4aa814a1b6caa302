"""What `edgewright deploy` does on the device, before anything of edgewright is there: only the standard library.

The workstation sends these modules, with :mod:`~edgewright.runtime.errors` and :mod:`~edgewright.runtime.files`, and a request over
ssh; :mod:`.main` prints one JSON document. What there is below the root:

```
incoming/<sha256>               files that come, perhaps not all of them yet
files/<sha256>                  files that are complete: their checksum was right
environments/<key>/             virtual environments; `ready.json` is written last
releases/<name>/<id>/           bundle/  environment -> …  report/verify.json …
current/<name>                  -> ../releases/<name>/<id>, exchanged in one step when all is done
```

Nothing that serves is touched before that last step: a break anywhere leaves the older version as it was.
"""
