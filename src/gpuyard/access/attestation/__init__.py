"""Evidence of confidential machines, verified offline: chain, revocation, signature, binding and policy.

Pure: the time is an argument, and nothing is fetched. Imported only where evidence is looked at, as it loads what reads
certificates.
"""
