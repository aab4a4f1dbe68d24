package pair

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"weir/controlplane/api"
)

// Announcements asks a weir for its announcements of an address, on links and to
// peers.
func (w *Weir) Announcements(ctx context.Context, addr netip.Addr) ([]api.Announcement, error) {
	var all []api.Announcement
	if err := w.API().Get(ctx, "announcements", &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(a api.Announcement) bool { return a.Address != addr.String() }), nil
}

// Announcers returns the weirs that say that they announce an address. Weirs
// that do not run are passed over.
func (p *Pair) Announcers(ctx context.Context, addr netip.Addr) ([]*Weir, error) {
	var who []*Weir
	var errs []error
	for _, w := range p.Weirs {
		if w.Process() == nil {
			continue
		}
		all, err := w.Announcements(ctx, addr)
		errs = append(errs, err)
		if slices.ContainsFunc(all, func(a api.Announcement) bool { return a.State == "announced" }) {
			who = append(who, w)
		}
	}
	return who, errors.Join(errs...)
}
