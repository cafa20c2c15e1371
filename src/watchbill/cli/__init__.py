"""The command line. It prints what the client returns; it must not know SQL, Kubernetes or PromQL.

Modules that declare commands import nothing heavy at their top: `watchbill --help` answers at once.
"""
