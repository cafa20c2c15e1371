"""The answers of our own operations, as structs: written once, encoded by the API, decoded by the client.

The OpenAPI components of the extensions are made from them (`api/http/components.py`), and from these the types
of the web page. The contract's own answers have their schemas in the contract; their structs are in `contract`.
"""
