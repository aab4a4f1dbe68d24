package reconcile

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/controlplane/health"
)

// journal is a log that can be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text.Reset()
}

// What happens to many backends at once is one line, what happens to a few is one
// each.
func TestReportsManyInOneLine(t *testing.T) {
	for _, tc := range []struct {
		backends, lines int
		want            string
	}{
		{named, named, "backend=10.0.1.1 "},
		{named + 1, 1, fmt.Sprintf("count=%d", named+1)},
	} {
		synctest.Test(t, func(t *testing.T) {
			var text strings.Builder
			text.WriteString("\nservices:\n  - name: web\n    addresses: [203.0.113.10]\n    ports: [tcp/80]\n    table_size: 10007\n    health: {tcp: {}}\n    backends:\n")
			for i := range tc.backends {
				fmt.Fprintf(&text, "      - {address: 10.0.1.%d}\n", i+1)
			}
			cfg := parse(t, text.String())
			p := newParts(newWorld(cfg))
			var log journal
			r := p.reconciler(cfg, slog.New(slog.NewTextHandler(&log, nil)))
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			time.Sleep(time.Second)
			log.forget()
			p.change(p.health, func(w *world) {
				for i := range tc.backends {
					w.sick("web", fmt.Sprintf("10.0.1.%d", i+1), health.Down)
				}
			})
			time.Sleep(time.Second)
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if got := strings.Count(log.String(), "status=down"); got != tc.lines || !strings.Contains(log.String(), tc.want) {
				t.Errorf("%d backends down, %d lines:\n%s", tc.backends, got, log.String())
			}
		})
	}
}
