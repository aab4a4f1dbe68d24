package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/afxdp"
	"weir/dataplane/packet"
)

// link is what the kernel says about an interface.
type link struct {
	present bool
	up      bool // carrier included
	index   int
	mac     packet.MAC
	mtu     int
	queues  int // receive queues in use
}

// linkInterval is how often links are looked at even if the kernel announced
// no change: announcements can be lost.
const linkInterval = 2 * time.Second

// watchLinks follows the interfaces' state until ctx ends.
func (e *Engine) watchLinks(ctx context.Context) error {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	defer close(done)
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) { e.cfg.Log.Debug("link subscription", "error", err) },
	})
	if err != nil {
		return fmt.Errorf("subscribe to link changes: %w", err)
	}
	t := time.NewTicker(linkInterval)
	defer t.Stop()
	for {
		if err := e.readLinks(); err != nil {
			e.cfg.Log.Warn("cannot read interfaces", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case _, open := <-updates:
			if !open {
				updates = nil // the subscription broke; the ticker goes on
			}
		}
	}
}

// readLinks looks at every interface and notes what has changed.
func (e *Engine) readLinks() error {
	for _, i := range e.interfaces {
		now, err := readLink(i.cfg.Name)
		if err != nil {
			return err
		}
		if e.noteLink(i, now) {
			e.changed()
		}
	}
	return nil
}

func (e *Engine) noteLink(i *iface, now link) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := i.link
	if before == now {
		return false
	}
	i.link = now
	if now.present && now.mac != before.mac && i.nic != nil {
		if err := i.nic.SetMAC(now.mac.HardwareAddr()); err != nil {
			e.cfg.Log.Error("cannot follow the interface's new address", "interface", i.cfg.Name, "error", err)
		}
	}
	if before.present {
		e.cfg.Log.Info("interface changed", "interface", i.cfg.Name, "present", now.present, "up", now.up,
			"mac", now.mac, "mtu", now.mtu, "queues", now.queues)
	}
	i.checkSize()
	return true
}

func readLink(name string) (link, error) {
	l, err := netlink.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return link{}, nil
	}
	if err != nil {
		return link{}, fmt.Errorf("look up interface %s: %w", name, err)
	}
	a := l.Attrs()
	mac, _ := packet.MACFrom(a.HardwareAddr)
	queues, err := afxdp.ReceiveQueues(name)
	if err != nil {
		return link{}, nil // it was there a moment ago
	}
	return link{
		queues:  queues,
		present: true,
		up:      a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0,
		index:   a.Index,
		mac:     mac,
		mtu:     a.MTU,
	}, nil
}
