"""Ray's worker processes forked from one that has imported what they need, in place of each importing it anew.

A worker of ours imports torch, transformers, DeepSpeed and Ray's libraries, four to eight CPU seconds, and a stage starts several: of tiny
models that is most of the time. `server` imports once and forks; `client` is what Ray starts in place of Python, and hands its
arguments, environment and output on. Where no server answers, the client is plain Python.
"""
