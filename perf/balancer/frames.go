package balancer

import (
	"context"

	"weir/dataplane/afxdp"
)

// Frames says where the frames of a queue are.
type Frames struct {
	Account afxdp.Account
	Fault   string // of a frame that is in no place, or in two; empty for none
}

// Frames looks for each frame of each queue, which have to be of AF_XDP.
func (b *Balancer) Frames(ctx context.Context) ([]Frames, error) {
	workers, err := b.workers()
	if err != nil {
		return nil, err
	}
	frames := make([]Frames, len(workers))
	for i, w := range workers {
		var fault error
		err := w.Do(ctx, func() { frames[i].Account, fault = afxdp.AccountOf(w.Queue()) })
		if err != nil {
			return nil, err
		}
		if fault != nil {
			frames[i].Fault = fault.Error()
		}
	}
	return frames, nil
}
