"""The measurements of the knob: how they are made (`build`), judged (`verdicts`) and read (`shipped`); the protocol is KNOB.md."""
