package appliance

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// firstLook is how often is looked for the first snapshot.
const firstLook = 20 * time.Millisecond

// manager is the service manager, as far as it has started weir and wants to be told
// about it (sd_notify(3)).
type manager struct {
	ready func() bool // weir forwards
	hangs func() bool
	warn  func(msg string, args ...any)
}

// tellManager tells the service manager that weir forwards and that it is well.
func (a *Appliance) tellManager(ctx context.Context) error {
	m := manager{
		ready: func() bool { return a.View().Generation > 0 },
		hangs: a.Engine.Hangs,
		warn:  a.log.Warn,
	}
	m.run(ctx)
	return nil
}

// run tells when weir is ready, and from then on that it is well: that its goroutines
// run, and that it does not hang. Else the manager ends weir and starts it anew, which
// the unit's WatchdogSec is for.
func (m *manager) run(ctx context.Context) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.warn("the service manager's watchdog is not fed", "error", err)
	}
	t := time.NewTicker(firstLook)
	defer t.Stop()
	for ready := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		switch {
		case !ready && m.ready():
			// A manager that is not told would not let weir go on, so it is told again.
			if _, err := daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS=forwarding"); err != nil {
				m.warn("the service manager cannot be told that weir forwards", "error", err)
				t.Reset(time.Second)
				continue
			}
			if limit <= 0 {
				return
			}
			ready = true
			t.Reset(limit / 4)
		case ready && !m.hangs():
			_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) // the next one is soon
		}
	}
}

// tellStopping has the service manager wait for as long as it takes weir to leave.
func tellStopping(within time.Duration) error {
	_, err := daemon.SdNotify(false, daemon.SdNotifyStopping+fmt.Sprintf("\nSTATUS=leaving\nEXTEND_TIMEOUT_USEC=%d", within.Microseconds()))
	return err
}
