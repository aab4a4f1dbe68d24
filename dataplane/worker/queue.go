package worker

import "weir/dataplane/queue"

// Queue returns the queue that the worker works. But for those methods that any
// goroutine may call, it is the worker's while that runs: others use it in a
// function that Do calls.
func (w *Worker) Queue() queue.Queue { return w.cfg.Queue }
