# What one logs in for: which system this is, and what is wrong with it.
if [ -t 1 ] && [ -z "${WEIR_GREETED:-}" ]; then
	export WEIR_GREETED=1
	weir --version
	weir-appliance status
	if weir-appliance configured; then
		timeout --foreground 60 weir doctor
	fi
fi
