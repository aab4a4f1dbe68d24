package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"github.com/urfave/cli/v2"

	"weir/dataplane/decap"
)

func decapCommand() *cli.Command {
	return &cli.Command{
		Name:  "decap",
		Usage: "on a backend: strip the tunnel header of mode ipip",
		Description: "Runs in the foreground on a backend of a service with mode ipip. Packets that\n" +
			"weir has tunnelled to this host reach its kernel without their outer header,\n" +
			"by XDP, so no tunnel device is needed. Each VIP has to be on lo as well:\n" +
			"ip addr add VIP/32 dev lo",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "interface", Aliases: []string{"i"}, Usage: "`NIC` on which tunnelled packets arrive"},
			&cli.StringSliceFlag{Name: "vip", Usage: "inner destination `ADDRESS`; may be given several times"},
			&cli.StringSliceFlag{Name: "from", Usage: "believe outer sources in `PREFIX` only; may be given several times"},
			&cli.BoolFlag{Name: "generic", Usage: "use generic XDP, for NICs whose driver has no native XDP"},
		},
		Action: runDecap,
	}
}

func runDecap(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	opt, err := decapOptions(c)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	opt.Log = log
	d, err := decap.New(opt)
	if err != nil {
		return err
	}
	defer d.Close()
	log.Info("stripping tunnel headers", "interface", opt.Interface, "mode", d.Mode(), "vips", opt.VIPs)
	if err := d.Run(c.Context); err != nil && c.Context.Err() == nil {
		return err
	}
	counters, err := d.Counters()
	if err != nil {
		return err
	}
	s := counters.Stripped
	log.Info("stopped", "stripped", s.IPv4InIPv4+s.IPv6InIPv6+s.IPv4InIPv6+s.IPv6InIPv4, "dropped_ecn", counters.Dropped.ECN)
	return nil
}

// decapOptions reads the flags. Which are required is checked here, since cli/v2
// answers with all of its help.
func decapOptions(c *cli.Context) (decap.Options, error) {
	opt := decap.Options{Interface: c.String("interface"), Generic: c.Bool("generic")}
	if opt.Interface == "" {
		return opt, errors.New("--interface is missing; want the NIC on which tunnelled packets arrive")
	}
	for _, v := range c.StringSlice("vip") {
		a, err := netip.ParseAddr(v)
		if err != nil || a.Zone() != "" {
			return opt, fmt.Errorf("--vip: %q is not a VIP; want an IP address, as 203.0.113.10 or 2001:db8::10", v)
		}
		opt.VIPs = append(opt.VIPs, a)
	}
	if len(opt.VIPs) == 0 {
		return opt, errors.New("--vip is missing; want an IP address, as 203.0.113.10 or 2001:db8::10")
	}
	for _, v := range c.StringSlice("from") {
		p, err := parsePrefix(v)
		if err != nil {
			return opt, fmt.Errorf("--from: %w", err)
		}
		opt.Sources = append(opt.Sources, p)
	}
	return opt, nil
}

// parsePrefix takes an address for the prefix that holds nothing else.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is not a prefix; want one as 10.0.0.0/24 or 2001:db8::/64, or an address", s)
	case p != p.Masked():
		return p, fmt.Errorf("%q has bits set after its length; want %s", s, p.Masked())
	}
	return p, nil
}
