"""A fleet to look at: simulated clusters, and everything that runs on them, in one command.

Two halves meet in `apiserver.store`. What speaks to agents is `apiserver`: the Kubernetes protocol over HTTP,
and `faults` to disturb it. What runs there is `simulation`: `scenario` draws the next change from the tables in
`model.lifecycles`, `transitions` carry it out on the `world`, `dispatcher` lets `model.scheduler` give out
machines, and `exporters` serve metrics. `model` is the state alone, without objects; `manifests` writes it as
Kubernetes objects, each kind as its file in `frameworks` says. `run` and `fleet` are the two processes of
`watchbill demo`.
"""
