package appliance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"weir/dataplane/engine"
)

// firstLook is how often is looked for the first snapshot.
const firstLook = 5 * time.Millisecond

// tellManager tells the service manager, if one has started weir and asks for it
// (sd_notify(3)), that weir forwards, once there is a snapshot, and from then on that it
// is well: its goroutines run, and no worker is stuck. Else the manager ends weir and
// starts it anew, which the unit's WatchdogSec is for.
func (a *Appliance) tellManager(ctx context.Context) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		a.log.Warn("the service manager's watchdog is not fed", "error", err)
	}
	t := time.NewTicker(firstLook)
	defer t.Stop()
	for ready := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		switch {
		case !ready && a.View().Generation == 0:
		case !ready:
			ready = true
			cfg := a.reconciler.Config()
			a.tell(daemon.SdNotifyReady + "\n" + fmt.Sprintf("STATUS=%d services on %d interfaces", len(cfg.Services), len(cfg.Interfaces)))
			if limit <= 0 {
				<-ctx.Done()
				return nil
			}
			t.Reset(limit / 4)
		case !anyStuck(a.Interfaces()):
			a.tell(daemon.SdNotifyWatchdog)
		}
	}
}

func anyStuck(interfaces []engine.InterfaceStatus) bool {
	return slices.ContainsFunc(interfaces, func(s engine.InterfaceStatus) bool { return s.Stuck })
}

// tell tells the service manager something.
func (a *Appliance) tell(what string) {
	if _, err := daemon.SdNotify(false, what); err != nil {
		a.log.Debug("the service manager cannot be told", "error", err)
	}
}
