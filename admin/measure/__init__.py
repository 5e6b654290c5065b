"""Measuring the engine, alone or beside llama.cpp: what `quiver bench engine` does.

`plan` says what is measured, a contender (`quiver_engine`, or `llama` through its worker process) does it, `rounds` lets them
take turns, `parity` checks first that both compute the same, and `figures` are what comes out.
"""
