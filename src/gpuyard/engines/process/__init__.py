"""Units as plain processes of this machine, each below a supervisor that outlives the server.

The supervisor is started as a bare interpreter, so `records`, `processes`, `logwriter`, `spawning`, `exec_door` and
`supervisor` import the standard library and each other only; this module must stay empty for the same reason.
"""
