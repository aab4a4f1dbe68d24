package worker_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/worker"
)

func TestAnswersWhileBusy(t *testing.T) {
	s := one(t)
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				s.queue.Inject(datagram(0, 0, n%700))
			}
		}
	})
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for range 50 {
				st, err := s.Status(within(t))
				if err != nil || st.Capacity != 1024 {
					t.Errorf("status %+v, error %v", st, err)
					return
				}
				if err := s.Flows(within(t), func(worker.Flow) bool { return true }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	asking.Wait()
	close(stop)
	load.Wait()
	s.idle()
	c := s.status().Counters
	if c.Received.Packets != c.Transmitted.Packets {
		t.Errorf("%d received, %d sent", c.Received.Packets, c.Transmitted.Packets)
	}
}

func TestFlowsListsEachOnce(t *testing.T) {
	s := one(t)
	const flows = 300
	for n := range flows {
		s.queue.Inject(datagram(0, 0, n))
	}
	s.sent(flows)
	seen := make(map[netip.Addr]int)
	err := s.Flows(within(t), func(f worker.Flow) bool {
		seen[packet.NetipAddr(f.Tuple.Src)]++
		if packet.NetipAddr(f.Tuple.Dst) != vip(0) || f.Tuple.DstPort != 53 || f.Slot != 0 || f.Generation != 1 || f.State != flow.StateUDP {
			t.Errorf("flow %+v", f)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	st := s.status()
	evicted := int(st.Counters.FlowsEvicted + st.Counters.FlowsUntrustedEvicted)
	if len(seen) != st.Flows || st.Flows+evicted != flows {
		t.Errorf("listed %d flows, %d are in the table and %d were evicted of %d", len(seen), st.Flows, evicted, flows)
	}
	for client, n := range seen {
		if n != 1 {
			t.Errorf("%s is listed %d times", client, n)
		}
	}
	calls := 0
	if err := s.Flows(within(t), func(worker.Flow) bool { calls++; return calls < 5 }); err != nil || calls != 5 {
		t.Errorf("%d calls after one returned false, error %v; want 5", calls, err)
	}
}

func TestAfterTheEnd(t *testing.T) {
	s := one(t)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for range 100 { // more than fit into the queue of requests
		st, err := s.Status(context.Background())
		if !errors.Is(err, worker.ErrStopped) {
			t.Fatalf("Status returned %v, want %v", err, worker.ErrStopped)
		}
		if st.Index != 0 || st.CPU != -1 {
			t.Fatalf("the status of a stopped worker does not say which it was: %+v", st)
		}
		if err := s.Flows(context.Background(), nil); !errors.Is(err, worker.ErrStopped) {
			t.Fatalf("Flows returned %v, want %v", err, worker.ErrStopped)
		}
	}
}

func TestAStuckWorkerIsNotWaitedFor(t *testing.T) {
	s := one(t)
	release := make(chan struct{})
	stuck := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.Do(context.Background(), func() { close(stuck); <-release })
	}()
	<-stuck
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 40 { // fills the queue of requests, too
		if _, err := s.Status(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("Status returned %v, want %v", err, context.Canceled)
		}
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the function that was slow: %v", err)
	}
	s.status()
}
