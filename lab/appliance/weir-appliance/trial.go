package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// steady is how long weir has to be up, without a break, for an update to be kept: one
// that crashes and is started again by systemd is not up.
const steady = 10 * time.Second

// trial waits until weir is up in a slot that was booted for this once, and keeps it. If
// that does not happen in time it fails, and the unit's FailureAction reboots the box,
// into the slot from before.
func trial(ctx context.Context) error {
	slot, onTrial, err := running()
	if err != nil {
		return err
	}
	if !onTrial {
		return errNotOnTrial
	}
	t := terms{Trial: 5 * time.Minute}
	if text, err := os.ReadFile(termsFile()); err == nil {
		if err := json.Unmarshal(text, &t); err != nil {
			say("trial: %s: %v", termsFile(), err)
		}
	}
	say("trial: slot %s has %v to come up, or the box reboots into the other one", slot, t.Trial)
	deadline := time.NewTimer(t.Trial)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var since time.Time
	for {
		err := up(ctx)
		now := time.Now()
		switch {
		case err != nil:
			since = time.Time{}
		case since.IsZero():
			since = now
		case now.Sub(since) >= steady:
			say("trial: weir is up")
			return commit(os.Stderr)
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("trial: slot %s is not up after %v: %w", slot, t.Trial, err)
		case <-ctx.Done():
			// Whoever stops it, be it to power off, does not want a reboot.
			say("trial: stopped; the next boot is of the other slot")
			return nil
		}
	}
}

// up returns why the box does not do what it is for: weir does not run, or it does not
// answer. A box that has not been configured yet is up when one can log in.
func up(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if configured() != nil {
		return systemctl(ctx, "is-active", "ssh.service")
	}
	if err := systemctl(ctx, "is-active", "weir.service"); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "weir", "show", "interfaces").CombinedOutput()
	if err != nil {
		return fmt.Errorf("weir show interfaces: %w: %s", err, out)
	}
	return nil
}

// abandon gives a trial up, in a system that got no further than emergency mode.
func abandon(ctx context.Context) error {
	_, onTrial, err := running()
	if err != nil {
		return err
	}
	if !onTrial {
		return errNotOnTrial
	}
	say("trial: the update ended in emergency mode; rebooting into the slot from before")
	return errors.Join(systemctl(ctx, "reboot", "--force"), errors.New("rebooting"))
}
